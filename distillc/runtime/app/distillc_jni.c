/* What Model.kt calls: models as handles, pictures as direct buffers of RGBA bytes. */
#include <jni.h>

#include "distillc.h"

static void throw_exception(JNIEnv *env, const char *what) {
  jclass kind = (*env)->FindClass(env, "java/lang/IllegalStateException");
  if (kind) (*env)->ThrowNew(env, kind, what);
}

static distillc_model *model_of(jlong handle) { return (distillc_model *)(intptr_t)handle; }

JNIEXPORT jlong JNICALL Java_distillc_Model_create(JNIEnv *env, jobject self, jint threads,
                                                   jstring weights) {
  (void)self;
  const char *path = weights ? (*env)->GetStringUTFChars(env, weights, NULL) : NULL;
  if (weights && !path) return 0;
  const distillc_options options = {threads, path};
  distillc_model *model = NULL;
  if (distillc_model_create(&options, &model)) throw_exception(env, distillc_last_error());
  if (path) (*env)->ReleaseStringUTFChars(env, weights, path);
  return (jlong)(intptr_t)model;
}

JNIEXPORT jint JNICALL Java_distillc_Model_scale(JNIEnv *env, jobject self, jlong handle) {
  (void)self;
  distillc_info info;
  if (distillc_model_info(model_of(handle), &info)) {
    throw_exception(env, distillc_last_error());
    return 0;
  }
  return info.output_height / info.input_height;
}

JNIEXPORT void JNICALL Java_distillc_Model_restore(JNIEnv *env, jobject self, jlong handle,
                                                   jobject source, jobject sink, jint width,
                                                   jint height) {
  const jint scale = Java_distillc_Model_scale(env, self, handle);
  if (!scale) return;
  const jlong pixels = (jlong)width * height;
  if ((*env)->GetDirectBufferCapacity(env, source) < 4 * pixels ||
      (*env)->GetDirectBufferCapacity(env, sink) < 4 * pixels * scale * scale) {
    throw_exception(env, "the buffers are not direct, or too small");
    return;
  }
  const distillc_image input = {
      (*env)->GetDirectBufferAddress(env, source), DISTILLC_RGBA8, width, height, 4, 0, 0};
  const distillc_image output = {(*env)->GetDirectBufferAddress(env, sink),
                                 DISTILLC_RGBA8,
                                 width * scale,
                                 height * scale,
                                 4,
                                 0,
                                 0};
  if (distillc_model_restore(model_of(handle), &input, &output, -1))
    throw_exception(env, distillc_last_error());
}

JNIEXPORT void JNICALL Java_distillc_Model_destroy(JNIEnv *env, jobject self, jlong handle) {
  (void)env, (void)self;
  distillc_model_destroy(model_of(handle));
}
